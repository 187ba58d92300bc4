"""β-TC-VAE (Chen et al. 2018): the part of the KL term that ties latents to one another has a weight of its own."""

from typing import Any, Literal

from pydantic import Field, model_validator

from aigc_lab.config import Count, Weight
from aigc_lab.nets import joined
from aigc_lab.noise import Noise
from aigc_lab.objectives import total_correlation
from aigc_lab.systems import base
from aigc_lab.systems.shared.image_vae import Code, ImageVAE


class BetaTCVAE(ImageVAE):
    """Minimises E[−log p(x|z)] + α·I(x; z) + β·TC(z) + γ·Σ KL(q(zᵢ) ‖ p(zᵢ)), nats a picture (equation 4). With α = β
    = γ = 1 it is the ELBO.

    `weighted` is the paper's choice: the posteriors of a batch stand for q(z), so that I(x; z) cannot exceed ln B.
    `stratified` counts the image's own posterior as one of `dataset_size`. Each part is logged. Defaults: α, γ of the
    paper; β = 6, of its sweep.
    """

    class Config(ImageVAE.Config):
        mutual_information: Weight = Field(1.0, description="weight α of the index-code mutual information")
        beta: Weight = Field(6.0, description="weight of the total correlation")
        dimension_wise: Weight = Field(1.0, description="weight γ of the latents' own divergences")
        estimate: Literal["weighted", "stratified"] = Field("weighted", description="of q(z), from a batch")
        dataset_size: Count | None = Field(None, description="images of train, which stratified sampling reads")

        @model_validator(mode="after")
        def _has_size(self) -> Any:
            if (self.estimate == "stratified") != (self.dataset_size is not None):
                raise ValueError("dataset_size, the number of images of train, goes with estimate stratified alone")
            return self

    loss_only = ImageVAE.loss_only | {"mutual_information", "beta", "dimension_wise"}
    config: Config

    def phases(self, batch_size: int) -> list[base.Phase]:
        size = self.config.dataset_size
        if size is not None and size < batch_size:
            raise ValueError(f"dataset_size {size} is less than the batch of {batch_size}")
        return super().phases(batch_size)

    def divergence(self, code: Code, noise: Noise, step: int) -> base.Loss:
        config = self.config
        latents, mean, log_variance = map(joined.gather, (code.latents, code.mean, code.log_variance))
        batch = len(mean)
        if config.dataset_size is None:
            weights = total_correlation.equal_log_weights(code.mean, batch)
        else:
            weights = total_correlation.stratified_log_weights(code.mean, batch, config.dataset_size)
        parts = total_correlation.decomposition(latents, mean, log_variance, weights)
        means = {name: value.mean() for name, value in parts._asdict().items()}
        total = (
            config.mutual_information * means["mutual_information"]
            + config.beta * means["total_correlation"]
            + config.dimension_wise * means["dimension_wise"]
        )
        return base.Loss(total, means)
