"""Prints what dask-cloudprovider would have an instance do: `cloud_init ARGUMENTS`, as JSON."""

import asyncio
import json
import sys

from dask_cloudprovider.aws import EC2Cluster


async def main() -> str:
    """It wants a running event loop, and calls nothing."""
    return EC2Cluster.get_cloud_init(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main()))
