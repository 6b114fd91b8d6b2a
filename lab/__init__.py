"""The lab: real hosts on one machine, for the demo, tests and benchmarks."""
