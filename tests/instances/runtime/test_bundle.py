"""What may become a version, and what its author is told if it may not."""

import pytest

from instances.runtime import bundle
from instances.runtime.bundle import BundleCode
from instances.runtime.errors import InvalidBundle
from tests.instances.runtime import machines
from tests.instances.runtime.machines import AUTHORIZERS

MACHINE4 = (
    AUTHORIZERS
    + 'import { createMachine } from "npm:xstate";\n'
    + 'export default createMachine({ predictableActionArguments: true, initial: "a", '
    + "states: { a: {} } });\n"
)


async def refusal(engine, source: str | bytes) -> str:
    raw = source.encode() if isinstance(source, str) else source
    with pytest.raises(InvalidBundle) as caught:
        await engine.pool.check_bundle(raw)
    message = str(caught.value)
    assert "/tmp" not in message
    assert "build/harness" not in message
    return message


async def test_sound_bundle_is_converted_and_its_xstate_found(engine):
    info = await engine.pool.check_bundle(machines.COUNTER.encode())

    assert info.xstate_major == 5
    assert info.externals == ["npm:xstate@5"]
    assert 'require("npm:xstate@5")' in info.commonjs
    assert info.warnings == []


async def test_xstate_4_is_what_the_bare_name_means(engine):
    info = await engine.pool.check_bundle(MACHINE4.encode())

    assert info.xstate_major == 4
    assert info.externals == ["npm:xstate"]


async def test_byte_order_mark_is_no_error(engine):
    info = await engine.pool.check_bundle(b"\xef\xbb\xbf" + machines.COUNTER.encode())

    assert info.xstate_major == 5


async def test_names_and_lines_stay_readable(engine):
    source = machines.COUNTER + "export function é_name() { throw new Error('日本') }\n"

    info = await engine.pool.check_bundle(source.encode())

    assert "function é_name() {\n" in info.commonjs
    assert "日本" in info.commonjs


async def test_syntax_error_is_shown_with_its_place_and_line(engine):
    message = await refusal(engine, "export default 1;\nlet a b;\n")

    assert message.startswith('Expected ";" but found "b"')
    assert "machine.js:2:6" in message
    assert "2 │ let a b;" in message


@pytest.mark.parametrize(
    "specifier", ["lodash", "./other.js", "/etc/hostname", "node:fs", "npm:xstate@3", "data:,x"]
)
async def test_import_that_is_not_provided_is_named(engine, specifier):
    message = await refusal(engine, f'const a = 1;\nimport x from "{specifier}";\nexport {{ x }};')

    assert message.startswith(f"machine.js:2:9: cannot import {specifier!r}")
    assert "npm:xstate@5" in message


async def test_reexport_that_is_not_provided_is_named(engine):
    assert "cannot import 'lodash'" in await refusal(engine, "export * from 'lodash';")


async def test_import_that_code_might_never_reach_is_a_warning(engine):
    source = machines.COUNTER + 'export const lazy = () => import("lodash");'

    info = await engine.pool.check_bundle(source.encode())

    assert info.warnings == ["'lodash' can't be loaded: it will fail when the code gets there"]
    assert info.externals == ["npm:xstate@5"]


async def test_top_level_await_is_refused_with_advice(engine):
    message = await refusal(engine, 'export default 1;\nawait fetch("x");\n')

    assert message.startswith("Top-level await")
    assert "machine.js:2:0" in message
    assert "Move the `await` into a function" in message


async def test_what_is_no_text_is_refused(engine):
    assert await refusal(engine, b"export default 1;\xff") == (
        "the bundle is not UTF-8 text (byte 17)"
    )


async def test_bundle_that_is_too_large_is_refused(engine):
    message = await refusal(engine, b" " * (bundle.SOURCE_BYTES_MAX + 1))

    assert message == "the bundle has 10,485,761 bytes; the limit is 10 MB"


async def test_bundle_near_the_limit_loads_with_room_to_work(engine):
    body = "{ const list = ['some text', { a: x }]; return list.map((one) => [one, x, list]); }"
    functions = "".join(f"function f{i}(x) {body}  // {'.' * 100}\n" for i in range(45_000))
    used = f"export const all = [{','.join(f'f{i}' for i in range(45_000))}];"
    source = (machines.COUNTER + functions + used).encode()
    assert len(source) > 0.9 * bundle.SOURCE_BYTES_MAX

    info = await engine.pool.check_bundle(source)
    engine.code[1] = BundleCode(info.commonjs, info.externals)

    assert (await engine.send(await engine.create(1), "add")).context == {"n": 1}


def test_bundler_that_gave_up_is_explained():
    assert bundle._explain("runtime: goroutine stack exceeds 1000000000-byte limit") == (
        "the bundle could not be converted: it is too large or nested too deeply"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (AUTHORIZERS, "no default export"),
        (AUTHORIZERS + "export default {};", "not an XState 4 or 5 machine"),
        ("export default 1; export const allowRead = () => true;", "does not export allowWrite"),
        (AUTHORIZERS + "export default nope;", "ReferenceError: nope is not defined"),
        (AUTHORIZERS + "function f() { null.x }\nf();", "(reading 'x') (in f)"),
    ],
)
async def test_bundle_that_does_not_load_is_refused_with_the_reason(engine, source, words):
    assert words in await refusal(engine, source)


async def test_bundle_that_loops_while_it_is_loaded_is_refused(start):
    engine = await start(load_limit_s=1.0)

    message = await refusal(engine, AUTHORIZERS + "for (;;) {}")

    assert "did not finish loading in time" in message


async def test_bundle_that_eats_memory_while_it_is_loaded_is_refused(engine):
    message = await refusal(
        engine,
        AUTHORIZERS + "const a = []; for (let i = 0; i < 400; i++) a.push(new Array(1e5).fill(.5))",
    )

    assert "more memory" in message


async def test_check_leaves_no_process_and_no_version(engine):
    await engine.pool.check_bundle(machines.COUNTER.encode())

    await engine.pool.stop()

    assert engine.pool.figures().processes == 0
    assert engine.exits == []
