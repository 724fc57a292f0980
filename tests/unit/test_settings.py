"""Settings: flag over variable over default, all faults at once, secrets never repeated."""

import pytest

from tasks import settings
from tasks.errors import ConfigurationError


def test_defaults_need_no_environment() -> None:
    loaded = settings.load({}, {})
    assert (loaded.kafka_brokers, loaded.port, loaded.redis_url) == (("localhost:9092",), 8080, None)
    assert loaded.workers >= 1


def test_a_flag_wins_over_its_variable_and_a_variable_over_the_default() -> None:
    environment = {"PORT": "81", "KAFKA_GROUP_ID": "from-variable"}
    loaded = settings.load({"port": "82"}, environment)
    assert (loaded.port, loaded.kafka_group_id, loaded.linger_ms) == (82, "from-variable", 50)


def test_all_faults_are_named_at_once_with_flag_and_variable() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({"port": "many"}, {"WORKERS": "0", "LOG_FORMAT": "xml", "KAFKA_TOPICS": " , "})
    said = str(caught.value)
    for part in ("--port / PORT ('many')", "--workers / WORKERS ('0')", "LOG_FORMAT ('xml')", "KAFKA_TOPICS"):
        assert part in said
    assert len(said.splitlines()) == 1


def test_a_secret_is_never_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({}, {"DATABASE_URL": "mysql://me:hunter2@db/x", "REDIS_URL": "hunter2"})
    assert "DATABASE_URL" in str(caught.value)
    assert "REDIS_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("setting", [row.name for row in settings.table()])
def test_nonsense_is_refused_for_every_setting_that_is_not_free_text(setting: str) -> None:
    free = {"kafka_brokers", "kafka_topics", "cors_origins", "kafka_group_id", "address", "local_dir"}
    text = " " if setting in free - {"cors_origins"} else "nonsense"
    if setting == "cors_origins":
        assert settings.load({setting: text}, {}).cors_origins == ("nonsense",)
        return
    with pytest.raises(ConfigurationError, match=setting.upper()):
        settings.load({setting: text}, {})


def test_children_get_flags_as_variables() -> None:
    assert settings.child_environment({"kafka_group_id": "g"}, {"PORT": "1"}) == {"PORT": "1", "KAFKA_GROUP_ID": "g"}


def test_lists_are_comma_separated_and_trimmed() -> None:
    assert settings.load({"kafka_topics": " a, b ,,c"}, {}).kafka_topics == ("a", "b", "c")
