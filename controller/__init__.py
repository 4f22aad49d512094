"""What a person drives: experiments, runs, evidence and reports."""
