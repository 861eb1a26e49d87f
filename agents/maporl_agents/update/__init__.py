"""From rollouts to new weights: token batches, log-probabilities, gradients, the optimiser."""
