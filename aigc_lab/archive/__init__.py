"""A sweep as one thing: deleted everywhere, or packed into a file that another home takes in."""
