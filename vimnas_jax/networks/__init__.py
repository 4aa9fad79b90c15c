"""theta and what it becomes: the supernet, the network of a genotype, their operations, sizes and costs."""
