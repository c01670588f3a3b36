"""Which version answers: the champion that is followed, one on trial, one that is examined first."""
