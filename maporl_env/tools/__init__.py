r"""Tools that agents call inside a message: Python in the sandbox, search in a folder, your own.

A call is a tag with the name of the tool, and its end tag ends the call:

    The sum is <python>print(17 * 23)</python>
    <result>
    391
    </result>
    so the answer is \boxed{391}.

The result is put behind the call, and its author writes on. `docs/how-to/tools.md` has the rules.

    toolbox     the syntax, the limits of a message, and the loop for agents that write text
    python      runs Python
    search      searches the passages of a folder
    by_name     tools by name, as on the command line
"""

from maporl_env.tools.by_name import toolbox_named
from maporl_env.tools.python import Python
from maporl_env.tools.search import FolderSearch
from maporl_env.tools.toolbox import Call, Tool, Toolbox

__all__ = ["Call", "FolderSearch", "Python", "Tool", "Toolbox", "toolbox_named"]
