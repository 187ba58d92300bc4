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

# A user's conditional system of grey pictures: all pixels of one of class k are of 80 k and up to 60 by its latent.
PAINTER = '''
"""Even pictures, brighter by class."""
import torch
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.noise import Draw
from aigc_lab.samples import Images
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System

class Painter(System):
    modality = Modality.IMAGES
    conditional = True
    class Config(Strict):
        pass
    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.scale = nn.Parameter(torch.full((1,), 60.0))
    def phases(self, batch_size):
        return []
    def samplers(self):
        return []
    def latents(self, count):
        return Draw((count, 1), "unit")
    def sample(self, latents, *, labels=None):
        grey = (latents[:, 0] * self.scale + 80 * labels) / 255
        return Images(grey[:, None, None, None].expand(-1, *self.shape.size).float())
'''
