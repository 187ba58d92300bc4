"""What histories and samples are judged to be: pure functions that say why."""
