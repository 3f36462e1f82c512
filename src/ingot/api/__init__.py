"""The façade: `Workspace` does for Python users what the command line does for people.

It resolves names to adapters (backends, provisioners, stores), hands them to the core, and answers with frozen
values. Everything is imported when used: `ingot --help` and a build with nothing to do do not pay for the rest.

    workspace = Workspace.open(Path("demo"))
    built = workspace.build(["node"])
    print(built.outcomes[0].ref)
"""

from ingot.api.workspace import Workspace, begin, schema

__all__ = ["Workspace", "begin", "schema"]
