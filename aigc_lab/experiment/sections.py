"""The sections of an experiment file, and what each of their keys may hold."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainValidator,
    PrivateAttr,
    TypeAdapter,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from aigc_lab.config import BatchSize, Count, Seed, Steps, Strict, Times, Weight
from aigc_lab.experiment.yaml_file import shown
from aigc_lab.host.content import unknown_name
from aigc_lab.pruners import base as pruners
from aigc_lab.statistics.race import first_block
from aigc_lab.statistics.rank_test import FEWEST

# The most points of a curve: all of them stay in memory while a run trains.
_POINTS = 10_000_000
_MOST_WORKERS = 1024
_MOST_REPLICAS = 256

#: as `trials_per_gpu`: decided by what a run was measured to take
AUTO: Literal["auto"] = "auto"
#: as `replicas`: each run by itself
OFF: Literal["off"] = "off"


class Training(Strict):
    """The budget and the numerics of one run."""

    steps: Steps = Field(description="one step is one pass over all phases")
    batch_size: BatchSize = 64
    log_every: Steps = Field(
        50, description="steps between two points of a curve: the mean over them, of gradient norms the last"
    )
    evaluate_every: Steps = Field(1000, description="steps between evaluations; the last step is always evaluated")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average that is sampled from; 0 for none")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: networks under autocast; penalties, spectral norms and statistics stay in fp32"
    )
    channels_last: bool = Field(False, description="convolutions with the channels innermost in memory: faster in bf16")
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest",
        description="of products of float32 matrices in a training's steps, by torch's names: high is TF32 on GPUs, "
        "medium bf16 on CPUs that have it; convolutions, samples and scores are as ever",
    )
    patience: Count | None = Field(
        None,
        ge=1,
        description="the run ends after so many evaluations without a better objective; the best is its result",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; part of what a result depends on to the bit"
    )
    stacked: bool = Field(False, description="train the seeds of one `train` command as one program (vmap)")
    devices: Times = Field(
        1, description="devices that train one run together, each a part of the batch: processes on a CPU, or GPUs"
    )
    checkpoint_seconds: Weight = Field(30.0, description="a crash loses so much work at most")
    keep_every: Steps | None = Field(None, description="keep the weights of every so many steps, beside the last")

    @field_validator("threads", mode="before")
    @classmethod
    def _a_number(cls, value: Any) -> Any:
        if value == AUTO:
            raise ValueError(
                f"{AUTO} depends on the machine, and is no part of a result; set execution.threads to {AUTO}"
            )
        return value

    @model_validator(mode="after")
    def _one_layout(self) -> "Training":
        if self.stacked and self.channels_last:
            raise ValueError("channels_last does nothing for stacked runs, whose weights lie row by row; leave out one")
        return self

    @model_validator(mode="after")
    def _parted(self) -> "Training":
        if self.devices > 1 and self.stacked:
            raise ValueError(
                f"devices is {self.devices}, which train one run together, and stacked trains several as one program; "
                "leave out one"
            )
        if self.batch_size % self.devices:
            nearest = max(self.batch_size // self.devices, 1) * self.devices
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by devices {self.devices}: each takes an equal part; "
                f"set training.batch_size to {nearest}"
            )
        return self

    @model_validator(mode="after")
    def _holdable_curves(self) -> "Training":
        if self.steps // self.log_every > _POINTS:
            least = -(-self.steps // _POINTS)
            raise ValueError(
                f"{self.steps:,} steps, logged every {self.log_every}, make curves of more than {_POINTS:,} points; "
                f"set training.log_every to {least:,} or more"
            )
        return self

    @field_validator("evaluate_every", "keep_every")
    @classmethod
    def _whole_intervals(cls, value: int | None, info: ValidationInfo) -> int | None:
        every = info.data.get("log_every") or 1
        if value and value % every:
            raise ValueError(
                f"{value} is not a multiple of log_every ({every}); set training.log_every to a divisor of it"
            )
        return value


class Objective(Strict):
    """A score that a sweep improves, and the verdicts that its runs may have."""

    minimize: str | None = None
    maximize: str | None = None
    subject_to: dict[str, list[str]] = Field(
        {}, description="collapse, stability: the verdicts that a run may have; trials that violate it come last"
    )
    _others: tuple["Objective", ...] = PrivateAttr(())

    @field_validator("subject_to")
    @classmethod
    def _verdicts(cls, allowed: dict[str, list[str]]) -> dict[str, list[str]]:
        from aigc_lab.verdicts.conclusion import Collapse
        from aigc_lab.verdicts.stability import Stability

        kinds = {"collapse": [str(each) for each in Collapse], "stability": [str(each) for each in Stability]}
        for kind, verdicts in allowed.items():
            if kind not in kinds:
                raise ValueError(unknown_name("kind of verdict", kind, list(kinds)))
            if not verdicts:
                raise ValueError(f"{kind}: name one verdict or more that a run may have")
            for verdict in verdicts:
                if verdict not in kinds[kind]:
                    raise ValueError(f"{kind}: {unknown_name('verdict', verdict, kinds[kind])}")
        return allowed

    @model_validator(mode="after")
    def _one(self) -> "Objective":
        if (self.minimize is None) == (self.maximize is None):
            raise ValueError("give minimize or maximize, and one of them only")
        return self

    @property
    def score(self) -> str:
        return self.minimize or self.maximize or ""

    @property
    def better(self) -> Literal["lower", "higher"]:
        return "lower" if self.minimize else "higher"

    @property
    def others(self) -> tuple["Objective", ...]:
        """The objectives that stand behind it in a list."""
        return self._others

    @classmethod
    def of_list(cls, entries: list[Any]) -> "Objective":
        """The first objective of a list, which holds the others. Raises `ValueError` for a list that is none."""
        if not entries:
            raise ValueError("it names no score; like [{minimize: fd}, {maximize: coverage}]")
        first, *others = TypeAdapter(list[Objective]).validate_python(entries, strict=True)
        scores = [each.score for each in (first, *others)]
        twice = next((score for score in scores if scores.count(score) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands here twice")
        if any(each.subject_to for each in others):
            raise ValueError("subject_to holds for all objectives; write it beside the first")
        first._others = tuple(others)  # noqa: SLF001 -- of its own class
        return first


class Search(Strict):
    """How configurations are chosen. With `per_system` every system gets the same number of trials."""

    sampler: Literal["tpe", "random", "grid", "qmc", "gp", "cma_es", "nsga2"] = "tpe"
    trials: Times = Field(10, description="the total, over all systems")
    seeds: Times = 1
    per_system: bool = True
    pruner: pruners.Name = Field(
        "none",
        description="stops the search's runs: median, worse than most of their system; hyperband, not among the best "
        "third; alarm, worse than before; collapse, the same or collapsed",
    )
    seed: Seed = Field(0, description="of the sampler")


class Confirm(Strict):
    """The best configurations, trained with fresh seeds and without pruning: the values that a comparison may quote."""

    top: Times = Field(1, description="so many of the best configurations of the search")
    seeds: Times = Field(3, description="fresh seeds of each; in a race, the most of each")
    race: bool = Field(
        False, description="seed after seed, and who is worse than the leader by an exact rank test gets no more"
    )
    budget: Times | None = Field(None, description="of a race: the most runs of all together")
    report: Times | None = Field(
        None,
        description="fresh seeds again, of the winner alone, which tell what it is worth: nothing was chosen by them; "
        f"after a race {FEWEST} unless given, otherwise none",
    )

    @property
    def reports(self) -> int:
        """The seeds of the winner that report."""
        return self.report if self.report is not None else FEWEST if self.race else 0

    @model_validator(mode="after")
    def _several(self) -> "Confirm":
        if self.top == 1 and self.race:
            raise ValueError("a race of one has a winner; set confirm.top to 2 or more, or leave out confirm.race")
        if self.top == 1 and self.report:
            raise ValueError(
                "with confirm.top 1 nothing is chosen by the seeds that confirm, so they report; leave out "
                "confirm.report, or set confirm.top to 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _can_be_decided(self) -> "Confirm":
        if self.budget is not None and not self.race:
            raise ValueError("confirm.budget bounds a race; add confirm.race: true, or leave it out")
        if not self.race or self.top == 1:
            return self
        first = first_block(self.top)
        if self.seeds <= first:
            raise ValueError(
                f"a race of {self.top} drops nobody before {first} seeds of each, since no order of fewer is rare "
                f"enough; set confirm.seeds to {first + 1} or more, or leave out confirm.race"
            )
        if self.budget is not None and self.budget < first * self.top:
            raise ValueError(
                f"a race of {self.top} begins with {first} seeds of each, {first * self.top} runs, and confirm.budget "
                f"is {self.budget}; set it to {first * self.top} or more, or lower confirm.top"
            )
        return self


def per_gpu(value: object) -> "int | Literal['auto'] | None":
    """How many workers share each GPU, checked: a number or `auto`. Raises `ValueError` for anything else."""
    if value is None or value == AUTO or (type(value) is int and 1 <= value <= _MOST_WORKERS):
        return value
    raise ValueError(f"it should be a whole number from 1 to {_MOST_WORKERS}, or {AUTO}, not {shown(value)}")


def replicas_of(value: object) -> "int | Literal['auto', 'off'] | None":
    """How many alike runs are trained as one program, checked: a number, `auto` or `off`. Raises `ValueError` for
    anything else.
    """
    if value is None or value in (AUTO, OFF) or (type(value) is int and 1 <= value <= _MOST_REPLICAS):
        return value
    raise ValueError(f"it should be a whole number from 1 to {_MOST_REPLICAS}, {AUTO} or {OFF}, not {shown(value)}")


class Execution(Strict):
    """Where, by whom and how many at once runs are done, which changes nothing of what they are but rounding. The
    command line wins over it.
    """

    executor: str | None = Field(None, description="a name of 'aigc-lab list executors', or a file")
    workers: int | None = Field(None, ge=1, le=_MOST_WORKERS, description="train so many runs at once")
    devices: str | None = Field(None, description="cpu, cuda:0,cuda:1, …, or auto: every GPU, else the CPU")
    trials_per_gpu: Annotated[int | Literal["auto"] | None, PlainValidator(per_gpu)] = Field(
        None, description="workers that share each GPU; auto: as many as its memory holds"
    )
    replicas: Annotated[int | Literal["auto", "off"] | None, PlainValidator(replicas_of)] = Field(
        None,
        description="train so many alike runs (other seeds, rates of the optimisers) as one program; auto: as many as "
        "are faster so, measured on this machine; off: each by itself, which is the default",
    )
    threads: Literal["auto"] | None = Field(
        None,
        description="auto: the CPU threads of a run with which there are most runs per hour, measured on this machine, "
        "where training.threads says no number",
    )
    options: dict[str, Any] = Field({}, description="of the executor that is named beside them")

    @model_validator(mode="after")
    def _fitting(self) -> "Execution":
        if self.workers is not None and self.trials_per_gpu is not None:
            raise ValueError("workers and trials_per_gpu say the same in two ways; give one of them")
        if self.options and self.executor is None:
            raise ValueError(f"{', '.join(self.options)}: options are of an executor; name it: executor: …")
        return self


class Sections(Strict):
    """The sections of an experiment file; `data` and `system` are validated by the plugins that they name."""

    data: dict[str, Any]
    system: dict[str, Any]
    training: Training
    evaluation: str | dict[str, Any]
    objective: Objective
    search: Search = Search()
    confirm: Confirm | None = None
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _threads(self) -> "Sections":
        if self.execution.threads is not None and self.training.threads is not None:
            raise ValueError(
                f"training.threads is {self.training.threads}, so execution.threads has nothing to choose; leave out "
                "one, or set training.threads to null"
            )
        if self.execution.threads is not None and self.training.devices > 1:
            raise ValueError(
                f"execution.threads is measured for runs of one process, and training.devices is "
                f"{self.training.devices}; leave out one"
            )
        return self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives; the first is the `objective` that ranks."""
        return (self.objective, *self.objective.others)

    @field_validator("objective", mode="wrap")
    @classmethod
    def _listed(cls, value: Any, one: ValidatorFunctionWrapHandler) -> Objective:
        return Objective.of_list(value) if isinstance(value, list) else one(value)

    @field_validator("*", mode="after")
    @classmethod
    def _holdable(cls, value: Any) -> Any:
        return value  # numbers are checked by the class of each section, whose messages name the key
