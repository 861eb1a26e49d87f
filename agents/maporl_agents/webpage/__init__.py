"""The HTML report: one self-contained page about a run or a study, by ``maporl report``.

`sources` reads a folder, `chart_data` and `debates` make data of it, `page` puts data, style and
scripts (`static/`) into one file that opens offline and may load nothing.
"""

from maporl_agents.webpage.page import render, write_page

__all__ = ["render", "write_page"]
