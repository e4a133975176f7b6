"""A worker on the CPU that asks a model for the positions of trimmed images, as vLLM's worker on a GPU does."""

from vllm.v1.worker.cpu_worker import CPUWorker


class PruningWorker(CPUWorker):
    """Sets after loading what `GPUModelRunner.load_model` sets and `CPUModelRunner.load_model` does not."""

    def load_model(self, **options):
        """Load the model."""
        super().load_model(**options)
        multimodal = self.vllm_config.model_config.multimodal_config
        self.model_runner.is_multimodal_pruning_enabled = (
            getattr(self.model_runner.get_model(), "supports_multimodal_pruning", False)
            and multimodal.is_multimodal_pruning_enabled()
        )
