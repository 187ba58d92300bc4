"""The samples of a system: their shape and range, and what they are functions of."""

from dataclasses import replace

import torch

from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.contracts.system_case import Case, drawn
from aigc_lab.contracts.system_losses import losses_are_finite
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Samples

SAMPLES: Contracts[Case] = Contracts()

# Of numbers of about 1 in single precision.
_ROUNDING = 1e-4


@SAMPLES.add(losses_are_finite)
def samples_have_the_declared_shape_and_range(case: Case) -> None:
    """Metrics and pictures read every value literally: a picture in [−1, 1] is half black, and scores as such."""
    for state in (case.fresh(), case.finished(case.fresh(), 2)):
        system = state.average
        samples = system.generate(7, "samples")
        if not isinstance(samples, Samples):
            raise Broken(f"sample returns a {type(samples).__name__}: wrap it, as in Images(values)")
        if samples.modality != system.modality:
            raise Broken(f"it declares {system.modality}, and sample returns {samples.modality}")
        shape, expected = tuple(samples.values.shape), (7, *system.shape.size)
        if shape != expected:
            raise Broken(f"seven samples have the shape {list(shape)}, not {list(expected)}")
        fault = modality_of(samples).fault_of_generated(samples, system.shape)
        if fault is not None:
            raise Broken(fault)


@SAMPLES.add(samples_have_the_declared_shape_and_range)
def every_latent_gives_its_own_sample(case: Case) -> None:
    """A sampler that ignores its latents makes one picture n times, and every metric counts them as n."""
    if case.kind.deterministic:
        return
    values = case.fresh().average.generate(7, "samples").values
    count = len({row.numpy().tobytes() for row in values})
    if count < 7:
        raise Broken(f"seven latents give {count} different samples")


@SAMPLES.add(every_latent_gives_its_own_sample, once=True)
def more_samples_of_one_key_begin_with_the_same(case: Case) -> None:
    """Scores at another n, and the pictures of all steps, must show the same latents: sample may draw nothing."""
    system = case.finished(case.fresh(), 1).average
    few, some, many = (system.generate(count, "key", 1, block=8).values for count in (3, 8, 21))
    for shorter in (few, some):
        if not torch.equal(many[: len(shorter)], shorter):
            raise Broken(
                f"the first {len(shorter)} of 21 samples are others than {len(shorter)} alone: does sample draw?"
            )
    if case.kind.deterministic:
        return
    if len({row.numpy().tobytes() for row in many}) < 21 or torch.equal(
        system.generate(3, "key", 2, block=8).values, few
    ):
        raise Broken("another block, or another key, gives the same samples")


@SAMPLES.add(every_latent_gives_its_own_sample)
def a_conditional_system_draws_what_it_is_asked_for(case: Case) -> None:
    """Scores by class, and whoever asks for a class, take every sample for one of the label it was drawn with."""
    if not _reads_labels(case):
        return
    system = case.finished(case.fresh(), 2).average
    first, second = (system.generate(7, "samples", labels=torch.full((7,), label)).values for label in (0, 1))
    if torch.equal(first, second):
        raise Broken("it declares conditional, and labels 0 and 1 give the same samples: read labels in sample")


@SAMPLES.add(a_conditional_system_draws_what_it_is_asked_for)
def a_sample_has_the_class_of_its_own_label(case: Case) -> None:
    """A grid of classes has the same latent along a row: what else is asked for beside it may not change a sample."""
    if not _reads_labels(case):
        return
    system = case.finished(case.fresh(), 2).average
    alike, mixed = torch.ones(7, dtype=torch.int64), torch.tensor([1, 0, 0, 1, 0, 0, 0])
    ones, others = (system.generate(7, "samples", labels=labels).values for labels in (alike, mixed))
    off = (ones - others)[mixed == 1].abs().max().item()
    if not off <= _ROUNDING:
        raise Broken(f"a sample is {off:.3g} off where its neighbours have other labels: read each row's own label")


@SAMPLES.add(a_conditional_system_draws_what_it_is_asked_for)
def labels_matter_in_training(case: Case) -> None:
    """A sampler that is given labels, and a loss that reads none, learn one class for all."""
    if not _reads_labels(case):
        return
    for phase in case.fresh().phases:
        batch, draws = case.batches()[0], drawn(phase, 0)
        assert batch.labels is not None and case.shape.classes is not None
        other = replace(batch, labels=(batch.labels + 1) % case.shape.classes)
        first, second = (phase.loss(each, draws, 0).total for each in (batch, other))
        if not torch.equal(first, second):
            return
    raise Broken("it declares conditional, and other labels of a batch change no loss: read batch.labels")


def _reads_labels(case: Case) -> bool:
    """Whether the case's system is conditional, and its data have two classes at least."""
    if (case.shape.classes or 0) < 2:
        return False
    with torch.device("meta"):
        return case.kind(case.config, case.shape).conditional
