"""Commands about data sets; imported when one of them is typed."""
