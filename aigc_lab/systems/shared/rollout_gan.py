"""Text GANs whose generator is a policy: each word is rewarded by what a critic says of completed sentences."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from aigc_lab.config import Few
from aigc_lab.nets.decoding import block_rows, chosen
from aigc_lab.nets.rollouts import RolloutMemory, completions, memory_of_reading
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.policy import others_mean, reinforce
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.text_gan import TextGAN
from aigc_lab.text.vocabulary import PAD


class RolloutGAN(TextGAN):
    """A word's reward is the mean worth of `rollouts` completions of the sentence up to it; the last word's, the worth
    of the sentence itself (Yu et al. 2017, eq. 4). Every sentence gets its own.

    A subclass says what a sentence is worth. Completions are drawn by a policy that lags behind: after each update its
    weights move by `rollout_rate` to the generator's.
    """

    class Config(TextGAN.Config):
        rollouts: Few = Field(16, description="completions of each beginning of a sentence")
        rollouts_at_once: Few | None = Field(None, description="of these in memory together; null: all")
        rollout_rate: float = Field(0.2, gt=0, le=1, description="how far the rollout policy moves after each update")
        baseline: Literal["none", "others"] = Field("none", description="taken from a reward: the others' mean")
        reward: Literal["critic", "constant"] = Field("critic", description="constant: the control, the same for all")

        @model_validator(mode="after")
        def _enough(self) -> Self:
            if self.rollouts_at_once is not None and self.rollouts_at_once > self.rollouts:
                raise ValueError(
                    f"rollouts_at_once {self.rollouts_at_once} is more than all rollouts, {self.rollouts}: give fewer, "
                    "or null for all at once"
                )
            if self.reward == "constant" and self.baseline == "others":
                raise ValueError("baseline: others leaves 0 of a constant reward, and nothing is learned: choose none")
            return self

    # The control draws no completions.
    reads: ClassVar[tuple[base.Read, ...]] = (
        *TextGAN.reads,
        *(base.Read(key, "reward", ("critic",)) for key in ("rollouts", "rollouts_at_once", "rollout_rate")),
    )
    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        if self.length < 2:
            raise ValueError("rollouts complete what begins a sentence, and sentences of 1 place are whole at once")
        # The rollout policy is the generator with other weights, which are buffers: no phase trains them.
        for name, weight in self._generator.named_parameters():
            self.register_buffer(_lagging(name), weight.detach().clone())

    @property
    def _generator(self) -> "_NextWord":
        return _NextWord(self.decoder, self.output)

    def phases(self, batch_size: int) -> list[base.Phase]:
        first, *others = super().phases(batch_size)
        return [first._replace(after=self._catch_up) if first.name == "pretraining" else first, *others]

    def adversarial_phase(self, batch_size: int, generator: list[nn.Module], start: int) -> base.Phase:
        config, length = self.config, self.length
        if config.baseline == "others" and batch_size < 2:
            raise ValueError("baseline: others is a mean over the other sentences of a batch, and batch_size is 1")
        noise = {"words": Draw((batch_size, length), "unit")}
        if config.reward == "critic":
            noise["rollouts"] = Draw((length - 1, batch_size, config.rollouts, length - 1), "unit")
        rule = self._rule(config.adversarial_lr, config.max_norm)
        return base.Phase("policy", self._policy_loss, generator, rule, noise, start=start, after=self._lag)

    def _policy_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            words = self.made(noise["words"])
            rewards = self.rewards(words, batch.padded(self.length), noise.get("rollouts"))
            reward = rewards[:, -1].mean()
            if self.config.baseline == "others":
                rewards = rewards - others_mean(rewards)
        surrogate = reinforce(-self.token_nll(words), rewards.masked_fill(words == PAD, 0))
        # The gradient is the policy's, and the value what it lowers: minus the reward of whole sentences.
        return base.Loss(surrogate - surrogate.detach() - reward, dynamics={"reward": reward})

    def rewards(self, words: Tensor, real: Tensor, uniform: Tensor | None) -> Tensor:
        """The reward [N, L] of each word of sentences [N, L] beside real ones [M, L], by uniform numbers [L − 1, N,
        rollouts, L − 1]; 1 for all without them.
        """
        if uniform is None:
            return torch.ones_like(words, dtype=torch.float32)
        compared = self.compared(real)
        at_once = self.config.rollouts_at_once or self.config.rollouts
        parts = [self._completed(words, compared, part) for part in torch.split(uniform, at_once, 2)]
        whole = self.worth_of(self.critic.features(self.critic.embed(words)), compared)
        return torch.cat([torch.cat(parts, 2).mean(2).T, whole[:, None]], 1)

    @abstractmethod
    def worth_of(self, features: Tensor, compared: Any) -> Tensor:
        """What whole sentences [N] are worth to the critic, of its features of them [N, width]."""

    def compared(self, real: Tensor) -> Any:
        """What `worth_of` compares sentences with, of real ones [M, L]; nothing unless a subclass does."""

    def _completed(self, words: Tensor, compared: Any, uniform: Tensor) -> Tensor:
        """What each completion is worth [L − 1, N, K]."""
        generator = self._generator
        weights = {name: getattr(self, _lagging(name)) for name, _ in generator.named_parameters()}
        output = {name.removeprefix("output."): weights[name] for name in weights if name.startswith("output.")}

        def read(last: Tensor, memory: Any) -> tuple[Tensor, Any]:
            features, memory = torch.func.functional_call(generator, weights, (last, memory))
            return features, memory

        def choose(features: Tensor, at: Tensor) -> Tensor:
            def logits(some: Tensor) -> Tensor:
                scores: Tensor = torch.func.functional_call(self.output, output, (some,))
                return scores

            return chosen(logits, features, at, self.output.out_features, self.first)

        tokens = completions(read, self._start(len(words)), words, uniform, choose)
        each = [self.worth_of(features, compared) for features in self.critic.of_completions(words, tokens)]
        return torch.stack(each).reshape(uniform.shape[:3])

    def _start(self, count: int) -> Any:
        """The memory of sentences whose rollouts have not begun."""
        return self.decoder.start(count, self.length)

    def rollout_memory(self, batch_size: int, device: str = "cpu") -> RolloutMemory | None:
        """None with a constant reward, which makes no rollouts."""
        config, length = self.config, self.length
        if config.reward == "constant":
            return None
        rows, words = (length - 1) * batch_size, self.output.out_features
        at_once = min(config.rollouts_at_once or config.rollouts, config.rollouts)
        reading = memory_of_reading(self._start(1), self.decoder.width, self.decoder.input_width)
        logits = 2 * 4 * words * min(block_rows(words, device.partition(":")[0]), rows * config.rollouts)
        critic, kept = 4 * self.critic.numbers(length), 4 * self.critic.numbers_of_beginnings(length)
        return RolloutMemory(
            *(length - 1, batch_size, config.rollouts, at_once),
            noise=4 * rows * config.rollouts * (length - 1),
            words=8 * rows * length,
            drawing=(logits, rows * reading),
            judging=(batch_size * kept, batch_size * critic),
        )

    # ---- the rollout policy

    def _catch_up(self, step: int) -> None:
        """The generator, as maximum likelihood leaves it."""
        if step == self.config.pretrain_steps - 1:
            for name, weight in self._generator.named_parameters():
                getattr(self, _lagging(name)).copy_(weight)

    def _lag(self, step: int) -> None:
        for name, weight in self._generator.named_parameters():
            getattr(self, _lagging(name)).lerp_(weight, self.config.rollout_rate)


class _NextWord(nn.Module):
    """Features [N, width] of the word after `last` [N, 1] and what the memory has seen, and the memory after it."""

    def __init__(self, decoder: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.decoder, self.output = decoder, output

    def forward(self, last: Tensor, memory: Any) -> tuple[Tensor, Any]:
        features, memory = self.decoder.step(last, memory)  # type: ignore[operator]
        return features[:, -1], memory


def _lagging(name: str) -> str:
    """The buffer of a weight of the rollout policy."""
    return f"lagging_{name.replace('.', '_')}"
