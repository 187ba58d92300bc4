"""What every system must do, whoever wrote it: all contracts of systems, in the order in which they are checked."""

from aigc_lab.contracts.base import Contracts
from aigc_lab.contracts.system_case import Case
from aigc_lab.contracts.system_losses import LOSSES
from aigc_lab.contracts.system_replicas import REPLICAS
from aigc_lab.contracts.system_samples import SAMPLES
from aigc_lab.contracts.system_state import STATE
from aigc_lab.contracts.system_structure import STRUCTURE

SYSTEM: Contracts[Case] = Contracts([*STRUCTURE, *LOSSES, *SAMPLES, *STATE, *REPLICAS])
