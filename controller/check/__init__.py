"""`mof kernel check`: every prefix of a series applied, compiled, booted, and held to what its patches promise."""
