"""One self-contained HTML page about a run or a study: ``maporl report``.

`sources` reads a folder, `figures` and `debates` make data of it, `page` puts data, style and
scripts (`static/`) into one file that opens offline and may load nothing.
"""

from maporl_agents.webpage.page import render, write_page

__all__ = ["render", "write_page"]
