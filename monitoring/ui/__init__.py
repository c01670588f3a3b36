"""One page of the whole loop, in a browser: quality, drift, decisions, versions and jobs, and what a person may do."""
