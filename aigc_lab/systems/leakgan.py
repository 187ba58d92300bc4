"""LeakGAN (Guo, Lu, Cai, Zhang, Yu & Wang 2018): the critic's features of the sentence so far reach the generator."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Few, Positive, Times, Width
from aigc_lab.nets import joined
from aigc_lab.nets.decoding import Sampling
from aigc_lab.nets.leaky import LeakyDecoder, Prefixes, Trace
from aigc_lab.nets.rollouts import RolloutMemory, memory_of_reading
from aigc_lab.nets.text_critics import TextCNN
from aigc_lab.noise import Noise
from aigc_lab.objectives.goals import intrinsic, reached
from aigc_lab.objectives.policy import others_mean, reinforce, rescaled
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.language import nll_of
from aigc_lab.systems.shared.rollout_gan import RolloutGAN
from aigc_lab.text.vocabulary import PAD


class LeakGAN(RolloutGAN):
    """A manager turns what the critic sees in the words so far into goals; a worker picks the words that reach them.

    Pretraining: the worker's likelihood, and goals along the changes of features in real sentences, while the critic
    learns beside it. Then goals are drawn to the changes that its own sentences made, each by its reward, ranked within
    the batch; the worker is rewarded for reaching goals; and a step of pretraining is interleaved now and then. No loss
    of the generator reaches the critic, none of the worker's the manager.

    Horizon, K, α and δ are the paper's. Optimisers, rollouts and pretraining are SeqGAN's, beside which it stands.
    """

    class Config(RolloutGAN.Config):
        decoder: Literal["lstm"] = Field("lstm", description="of worker and manager")
        critic: Literal["cnn"] = Field("cnn", description="whose features are leaked")
        # Of a transformer and of a GRU critic, which it has not.
        heads: ClassVar[None]  # type: ignore[misc]
        critic_hidden: ClassVar[None]  # type: ignore[misc]
        manager_hidden: Width = Field(32, description="of the manager's LSTM")
        goal_size: Width = Field(16, description="K: channels of what the worker is told of the goals")
        horizon: Few = Field(4, description="c: words in which a goal is to be reached, and goals that a word is told")
        temperature: Positive = Field(1.5, description="α of sentences made in training; elsewhere it is 1")
        sharpness: Positive = Field(12.0, description="δ: how far ranks set rewards apart")
        interleave: Times | None = Field(15, description="policy steps for one of maximum likelihood; null: none of it")

    # The control ranks no rewards.
    reads = (
        *(each for each in RolloutGAN.reads if each.key not in ("heads", "critic_hidden")),
        base.Read("sharpness", "reward", ("critic",)),
    )
    config: Config
    decoder: LeakyDecoder
    critic: TextCNN

    def __init__(self, config: Config, shape: Shape) -> None:
        if config.horizon > shape.size[0]:
            raise ValueError(
                f"horizon: goals of {config.horizon} words, and a sentence has {shape.size[0]} places; choose no more"
            )
        super().__init__(config, shape)

    def _decoder(self, config: Any, words: int) -> LeakyDecoder:
        return LeakyDecoder(
            words,
            config.embedding,
            config.hidden,
            config.layers,
            leaked=sum(self._filters(config).values()),
            manager=config.manager_hidden,
            goal=config.goal_size,
            horizon=config.horizon,
        )

    def head(self) -> nn.Linear:
        """The layer of O_t, which holds the bias of the worker, so that this has none."""
        return nn.Linear(self.decoder.width, len(self.vocabulary) - self.first, bias=False)

    # ---- the phases

    def phases(self, batch_size: int) -> list[base.Phase]:
        config, phases = self.config, super().phases(batch_size)
        # What is leaked must mean something to be learned from: critic and generator are pretrained in turn.
        phases = [each._replace(start=0) if each.name == "critic" else each for each in phases]
        policy, every = phases[-1], config.interleave
        if every is None:
            return phases
        rule = self._rule(config.lr, config.max_norm)
        likelihood = base.Phase("likelihood", self._likelihood_loss, policy.trains, rule)
        return [*phases, likelihood._replace(start=policy.start, every=every, begins=policy.begins)]

    def _likelihood_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        words = batch.values
        trace, is_word = self._trace(words), words != PAD
        nll = self._nll(trace, words).sum() / joined.mean(is_word.sum())
        cosine = self._mean(reached(trace.leaked, trace.goals, self.config.horizon), is_word)
        return base.Loss(nll - cosine, {"nll": nll, "goals": -cosine})

    def _policy_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        config = self.config
        with torch.no_grad():
            words = self.made(noise["words"])
            rewards = self.rewards(words, batch.padded(self.length), noise.get("rollouts"))
        trace, is_word = self._trace(words, config.temperature), words != PAD
        followed = intrinsic(trace.leaked, trace.goals.detach(), config.horizon)
        # The control rewards neither manager nor worker by what the critic says.
        controlled = config.reward == "constant"
        worth = rewards if controlled else rescaled(rewards, config.sharpness)
        reward = rewards if controlled else followed
        if config.baseline == "others":
            reward = reward - others_mean(reward)
        cosine = reached(trace.leaked, trace.goals, config.horizon)
        manager = reinforce(cosine, worth * is_word)
        worker = reinforce(-self._nll(trace, words), reward * is_word)
        surrogate, total = manager + worker, rewards[:, -1].mean()
        dynamics = {"intrinsic": self._mean(followed, is_word), "goals": self._mean(cosine, is_word)}
        # The gradients are the manager's and the worker's, and the value is minus the reward of whole sentences.
        return base.Loss(surrogate - surrogate.detach() - total, dynamics={"reward": total} | dynamics)

    def worth_of(self, features: Tensor, compared: Any) -> Tensor:
        """The critic's probability [N] that a sentence is real."""
        return self.judged(features).sigmoid()

    def made(self, uniform: Tensor) -> Tensor:
        """Sentences [N, L] that the generator draws in training, at its temperature there."""
        return self.sentences(uniform, Sampling(temperature=self.config.temperature), to_the_end=True)

    @staticmethod
    def _mean(values: Tensor, is_word: Tensor) -> Tensor:
        """Over the words."""
        return (values * is_word).sum() / joined.mean(is_word.sum())

    # ---- the language model

    def _trace(self, words: Tensor, temperature: float = 1.0) -> Trace:
        trace: Trace = self.decoder(words, Prefixes(self.critic, self.length), temperature)
        return trace

    def _nll(self, trace: Trace, words: Tensor) -> Tensor:
        return nll_of(self.output(trace.features), words, self.first)

    def token_nll(self, words: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """−log p of each word given those before it, in nats [N, L]; 0 at `<pad>`."""
        return self._nll(self._trace(words), words)

    def _start(self, count: int) -> Any:
        return self.decoder.start(count, self.length, Prefixes(self.critic, self.length), self.config.temperature)

    def rollout_memory(self, batch_size: int, device: str = "cpu") -> RolloutMemory | None:
        """As of any rollouts, but for what reading takes: windows of the critic beside both LSTMs."""
        memory = super().rollout_memory(batch_size, device)
        if memory is None:
            return None
        prefixes, decoder = Prefixes(self.critic, self.length), self.decoder
        lstms = memory_of_reading(self._start(1), self.config.hidden + self.config.manager_hidden, decoder.input_width)
        reading = lstms + prefixes.bytes_of_reading + 4 * 2 * decoder.width
        fixed, rows = memory.drawing[0] + prefixes.bytes, (self.length - 1) * batch_size
        return replace(memory, drawing=(fixed, rows * reading))

    def sentences(
        self, uniform: Tensor, sampling: Sampling, context: Any = None, *, to_the_end: bool = False
    ) -> Tensor:
        """Sentences [N, L] by uniform numbers [N, L]; the decoder is told what the critic sees."""
        leaked: Any = Prefixes(self.critic, self.length)
        return super().sentences(uniform, sampling, leaked, to_the_end=to_the_end)

    def samplers(self) -> list[nn.Module]:
        return [self.decoder, self.output, self.critic]
