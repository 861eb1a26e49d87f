"""Language models in memory: loading, adapters, output heads, critics, and the team they form."""

import logging


def _no_news_of_kernels(record: logging.LogRecord) -> bool:
    """Silence a line of bitsandbytes on what it could not load for some processors.

    It asks for a package that nothing here needs, as `quantize.settle` turns its kernel off.
    """
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward from kernels")


logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_no_news_of_kernels)
