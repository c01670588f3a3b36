"""Work that runs to completion: the spec, data, tasks, sweep, training, evaluation, publishing."""
