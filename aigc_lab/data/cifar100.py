"""CIFAR-100 (Krizhevsky 2009): 60,000 colour photographs of 32×32 pixels in a hundred classes; the published files."""

from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import CIFARLike

# The fine labels, in the order of their numbers.
_NAMES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
    can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
    seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class CIFAR100(CIFARLike):
    """Files are read from `<data_dir>/cifar-100-python`, and downloaded only when absent. Labels are the fine ones."""

    source = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = "CIFAR100"
    classes = 100
    names = tuple(_NAMES.split())

    class Config(Strict):
        pass
