"""The parts of a sweep: its points, a trial's workers, what is kept of a trial, which keys mattered."""
