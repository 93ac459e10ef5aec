"""The figures of a timeline: lengths, overlaps, shares, sites, attribution."""
