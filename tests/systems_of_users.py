"""Systems that a user could have written, as the source of a file."""

# A user's conditional system: class k lies at about (10 k, 10 k).
MINE = '''
"""Points around their class."""
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.noise import Draw
from aigc_lab.samples import Points
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System

class Mine(System):
    modality = Modality.POINTS
    conditional = True
    class Config(Strict):
        pass
    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.scale = nn.Parameter(__import__("torch").full((2,), 0.1))
    def phases(self, batch_size):
        return []
    def samplers(self):
        return []
    def latents(self, count):
        return Draw((count, 2), "uniform")
    def sample(self, latents, *, labels=None):
        return Points(latents * self.scale + 10 * labels[:, None])
'''
