"""The system that runs of an executor's contracts train. Files in a folder tell it to fail, or to wait, while samples
are drawn from it.

An experiment names it by this file's path, as it names a user's: an executor may do its runs in any process.
"""

import time
from pathlib import Path
from typing import Any

from pydantic import Field

from aigc_lab.host import signals
from aigc_lab.samples import Samples
from aigc_lab.systems import point_gan

#: what stands in the folder: asked to fail, asked to wait, and the answer that it waits
FAIL, WAIT, WAITS = "fail", "wait", "waits"
#: seconds between two looks at the folder
LOOK = 0.02


class Obedient(point_gan.PointGAN):
    """A small GAN of points that does as it is told."""

    class Config(point_gan.PointGAN.Config):
        folder: str = Field("", description="where it looks for what it is told")

    config: Config

    def generate(self, *given: Any, **options: Any) -> Samples:
        folder = Path(self.config.folder)
        if (folder / FAIL).exists():
            raise RuntimeError("it was told to fail")
        if (folder / WAIT).exists():
            (folder / WAITS).touch()
        while (folder / WAIT).exists() and not signals.stop_requested():
            time.sleep(LOOK)
        return super().generate(*given, **options)
