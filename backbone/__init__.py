"""GoogLeNet and what runs it: the network, its weights, model files, scoring of regions on CPU and GPU."""
