"""Token generation: KV cache, CUDA graph, speculative and constrained decoding."""
