"""One test for both clients of the SDK, the blocking and the asynchronous one.

A test is written as a coroutine; these functions make the difference between the two clients disappear.
"""

import inspect
from contextlib import asynccontextmanager


async def got(value):
    """The value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


async def each(iterable):
    """The elements of all pages of a list, or the events of a stream."""
    iterable = await got(iterable) if not hasattr(iterable, "__aiter__") else iterable
    if hasattr(iterable, "__aiter__"):
        async for element in iterable:
            yield element
    else:
        for element in iterable:
            yield element


async def collect(iterable):
    """The items of `each` as a list."""
    return [element async for element in each(iterable)]


@asynccontextmanager
async def opened(manager):
    """`with` or `async with`, as the client requires."""
    if hasattr(manager, "__aenter__"):
        async with manager as inside:
            yield inside
    else:
        with manager as inside:
            yield inside
