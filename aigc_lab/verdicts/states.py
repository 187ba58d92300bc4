"""What is found of a bin of the real data, and of a class that a conditional system is asked for, in a word.

The words are stored. They stand apart from what decides them, so that a reader of the registry needs no NumPy.
"""

#: what a generator makes of a bin
MISSING, PRESENT, UNDECIDED = "missing", "present", "undecided"
#: what is drawn for a class: that class, another, or it cannot be told
DRAWN, OTHER, UNTOLD = "drawn", "another", "undecided"
#: how varied it is beside real samples of the class: as those, less than half as much, one thing, or it cannot be told
VARIED, NARROW, ONE, UNMEASURED = "varied", "narrow", "one thing", "unmeasured"
