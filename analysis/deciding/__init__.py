"""What verdicts are put together from: windows, intervals, terms of a contrast, primary contrasts."""
