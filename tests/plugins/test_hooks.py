"""Hooks: what is checked when a plugin is registered, and who is blamed when one fails."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from antmmf import hookimpl
from antmmf.contracts import RunState
from antmmf.errors import ConfigError, DataError, PluginError
from antmmf.plan import plan_run
from antmmf.plugins import apply_defaults, hook_names, load_plugins, new_manager, register
from antmmf.registry import Registry
from antmmf.testing import fake_distribution, on_path

HERE = Path(__file__).parent
STATE = RunState()


class Failing:
    @hookimpl
    def antmmf_eval_end(self, split: str) -> None:
        raise ValueError(f"no {split}\nhere")

    @hookimpl
    def antmmf_run_end(self, error: str | None) -> None:
        raise DataError(f"the disk is full after {error}")


class Counting:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def antmmf_eval_end(self, state: RunState, split: str) -> None:
        self.seen.append(f"{split} at {state.step}")


def test_a_hook_gets_only_the_arguments_it_wants() -> None:
    manager, counting = new_manager(), Counting()
    register(manager, counting, name="counting")
    manager.hook.antmmf_eval_end(state=STATE, split="val", figures={})
    assert counting.seen == ["val at 0"]


def test_a_hook_that_fails_names_its_plugin_and_hook() -> None:
    manager = new_manager()
    register(manager, Failing(), name="acme:report")
    with pytest.raises(PluginError) as error:
        manager.hook.antmmf_eval_end(state=STATE, split="val", figures={})
    assert str(error.value) == "acme:report failed in antmmf_eval_end: ValueError: no val here"
    assert isinstance(error.value.__cause__, ValueError)


def test_an_error_raised_on_purpose_stays_what_it_is() -> None:
    manager = new_manager()
    register(manager, Failing(), name="acme:report")
    with pytest.raises(DataError, match="the disk is full after x"):
        manager.hook.antmmf_run_end(info=None, state=STATE, error="x")


def test_a_hook_that_is_interrupted_is_not_a_failure() -> None:
    def interrupted(info: object) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    manager = new_manager()
    register(manager, SimpleNamespace(antmmf_run_start=hookimpl(interrupted)), name="stop")
    with pytest.raises(KeyboardInterrupt):
        manager.hook.antmmf_run_start(info=None, state=STATE)


def test_a_wrapper_works_and_sees_what_the_others_return() -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def antmmf_should_stop(self) -> Any:
            result = yield
            return not result

    manager = new_manager()
    register(manager, Wrapper(), name="wrapper")
    assert manager.hook.antmmf_should_stop(state=STATE, figures={}) is True


@pytest.mark.parametrize("hook", hook_names())
def test_every_hook_can_be_implemented_without_arguments(hook: str) -> None:
    calls: list[str] = []
    manager = new_manager()
    plugin = SimpleNamespace(**{hook: hookimpl(lambda: calls.append(hook))})
    register(manager, plugin, name="plain")
    caller = getattr(manager.hook, hook)
    caller(**dict.fromkeys(caller.spec.argnames))
    assert calls == [hook]


def test_a_rejected_plugin_leaves_the_manager_as_it_was() -> None:
    manager = new_manager()
    plugin = SimpleNamespace(
        antmmf_eval_end=hookimpl(lambda split: None),  # noqa: ARG005
        antmmf_step_ned=hookimpl(lambda state: None),  # noqa: ARG005
    )
    with pytest.raises(PluginError):
        register(manager, plugin, name="half")
    assert not manager.has_plugin("half")
    assert manager.hook.antmmf_eval_end.get_hookimpls() == []
    register(manager, Counting(), name="half")


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (SimpleNamespace(antmmf_step_ned=hookimpl(lambda: None)), "did you mean 'antmmf_step_end'?"),
        (SimpleNamespace(antmmf_step_end=hookimpl(lambda loss: None)), "has no argument 'loss'"),  # noqa: ARG005
        (SimpleNamespace(antmmf_step_end=hookimpl(lambda *, state: None)), "'state' of its antmmf_step_end must be"),  # noqa: ARG005
        (SimpleNamespace(antmmf_step_end=lambda state: None), "lacks the decorator @hookimpl"),  # noqa: ARG005
        (SimpleNamespace(), "it has no hook"),
    ],
)
def test_unsound_hooks_are_refused(plugin: object, reason: str) -> None:
    with pytest.raises(PluginError, match=re.escape(reason)) as error:
        register(new_manager(), plugin, name="acme:hooks")
    assert str(error.value).startswith("acme:hooks: ")


def test_registering_twice_is_refused() -> None:
    manager, plugin = new_manager(), Counting()
    register(manager, plugin, name="one")
    with pytest.raises(PluginError, match="two"):
        register(manager, plugin, name="two")
    assert manager.has_plugin("one")


def test_the_manager_is_new_for_every_run() -> None:
    register(new_manager(), Counting(), name="counting")
    assert new_manager().get_plugins() == set()


def test_a_resolver_answers_for_a_family_of_names(tmp_path: Path) -> None:
    source = """
        from antmmf import hookimpl

        class Reader:
            def __init__(self, *, size: int = 3) -> None: ...
            def read(self, source, pick): ...

        @hookimpl
        def antmmf_resolve(kind, name):
            return Reader if kind == "readers" and name.startswith("acme/") else None
    """
    points = {"antmmf.plugins": {"family": "acme_family"}}
    with on_path(fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_family": source})):
        plan = plan_run("quickstart", ["input_attributes.reader=acme/fast"], registry=Registry())
    assert plan.inputs["reader"].full_name == "acme/fast"
    assert plan.inputs["reader"].params == {"size": 3}


def test_defaults_of_a_plugin_are_attributed_and_must_be_a_dict() -> None:
    manager = new_manager()
    plugin = SimpleNamespace(antmmf_config_defaults=hookimpl(lambda: {"training_parameters.seed": 7}))
    register(manager, plugin, name="acme:defaults")
    assert apply_defaults(manager, {}) == [("acme:defaults", "training_parameters.seed", 7)]
    register(manager, SimpleNamespace(antmmf_config_defaults=hookimpl(lambda config: [1])), name="bad")  # noqa: ARG005
    with pytest.raises(ConfigError, match="bad: antmmf_config_defaults must return a dict, is"):
        apply_defaults(manager, {})


def test_a_run_whose_hook_fails_names_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from antmmf.run import assemble

    source = "from antmmf import hookimpl\n@hookimpl\ndef antmmf_step_end(report): raise OSError('no space')"
    points = {"antmmf.plugins": {"logger": "acme_logger"}}
    fake_distribution(tmp_path / "site", name="acme", entry_points=points, modules={"acme_logger": source})
    monkeypatch.setenv("SEEN", str(tmp_path))
    with on_path(tmp_path / "site"):
        plan = plan_run(
            str(HERE / "tiny.yml"),
            [f"training_parameters.save_dir={tmp_path / 'run'}", "training_parameters.log_interval=1", "callbacks=[]"],
            registry=Registry(files=[HERE / "mine.py"]),
        )
        with pytest.raises(PluginError, match="acme:logger failed in antmmf_step_end: OSError: no space"):
            assemble(plan).execute()


def test_the_lock_lists_hook_plugins(tmp_path: Path) -> None:
    from antmmf.run_folder import plugin_lock

    source = "from antmmf import hookimpl\n@hookimpl\ndef antmmf_run_start(info: object) -> None: ..."
    points = {"antmmf.plugins": {"quiet": "acme_quiet"}}
    with on_path(fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_quiet": source})):
        lock = plugin_lock(plan_run("quickstart", registry=Registry()))
        manager, _ = load_plugins(Registry())
    assert manager.has_plugin("acme:quiet")
    assert lock["acme"]["components"] == {"plugins/quiet": "acme_quiet"}
    assert len(lock["acme"]["source"]) == 64
