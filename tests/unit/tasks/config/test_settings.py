"""Settings: flag over variable over default, all faults at once, secrets never repeated."""

import ssl

import certifi
import kombu.utils.url
import pytest
from redis.connection import parse_url

from tasks.config import catalogue, settings
from tasks.config.environment import child_environment
from tasks.errors import ConfigurationError

AUTHORITIES = certifi.where()


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


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "KAFKA_SASL_PASSWORD": "hunter2"}, "KAFKA_SASL_USERNAME must be set"),
        ({"KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "KAFKA_SASL_USERNAME": "me"}, "KAFKA_SASL_PASSWORD must be set"),
        ({"KAFKA_SASL_PASSWORD": "hunter2"}, "KAFKA_SASL_PASSWORD is not for KAFKA_SECURITY_PROTOCOL plaintext"),
        ({"KAFKA_SSL_CA_FILE": AUTHORITIES}, "KAFKA_SSL_CA_FILE is not for KAFKA_SECURITY_PROTOCOL plaintext"),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CERT_FILE": __file__}, "KAFKA_SSL_KEY_FILE go together"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CERT_FILE": __file__, "KAFKA_SSL_KEY_FILE": __file__},
            "must be a certificate and its key as PEM",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CA_FILE": __file__}, "contains no readable PEM certificate"),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CA_FILE": "/nowhere"}, "KAFKA_SSL_CA_FILE ('/nowhere'): is no"),
        ({"KAFKA_TOPICS": "a,task-calls"}, "KAFKA_CALLS_TOPIC must not be one of KAFKA_TOPICS"),
        ({"REDIS_URL": "redis://:hunter2@redis", "REDIS_SSL_CA_FILE": AUTHORITIES}, "begins with rediss://"),
    ],
)
def test_settings_that_contradict_each_other_are_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({}, given)
    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_show_no_secret() -> None:
    given = {"KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "KAFKA_SASL_USERNAME": "me", "KAFKA_SASL_PASSWORD": "hunter2"}
    loaded = settings.load(
        {}, {**given, "DATABASE_URL": "postgresql://me:hunter2@db/x", "REDIS_URL": "redis://:hunter2@r"}
    )
    assert "hunter2" not in repr(loaded)
    assert "KAFKA_SASL_PASSWORD" not in {row.name.upper() for row in catalogue.settings() if row.commands}


def test_redis_over_tls_is_verified_by_redis_py_and_by_kombu() -> None:
    loaded = settings.load({}, {"REDIS_URL": "rediss://:p%2Fw@r:1/2", "REDIS_SSL_CA_FILE": AUTHORITIES})
    assert loaded.redis_url is not None
    assert parse_url(loaded.redis_url)["ssl_ca_certs"] == AUTHORITIES
    assert kombu.utils.url.parse_url(loaded.redis_url)["ssl"]["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert parse_url(loaded.redis_url)["password"] == "p/w"
    own = settings.load({}, {"REDIS_URL": "rediss://r?ssl_ca_certs=/own", "REDIS_SSL_CA_FILE": AUTHORITIES}).redis_url
    assert own is not None and parse_url(own)["ssl_ca_certs"] == "/own"


@pytest.mark.parametrize("setting", [row.name for row in catalogue.settings()])
def test_nonsense_is_refused_for_every_setting_that_is_not_free_text(setting: str) -> None:
    free = {"kafka_brokers", "kafka_topics", "kafka_group_id", "address", "local_dir"}
    free |= {"kafka_calls_topic", "kafka_sasl_username", "kafka_sasl_password", "seal_key"}
    text = "," if setting == "task_queues" else " " if setting in free else "non-sense"
    with pytest.raises(ConfigurationError, match=setting.upper()):
        settings.load({setting: text}, {})


def test_children_get_flags_as_variables() -> None:
    assert child_environment({"kafka_group_id": "g"}, {"PORT": "1"}) == {"PORT": "1", "KAFKA_GROUP_ID": "g"}


def test_lists_are_comma_separated_and_trimmed() -> None:
    assert settings.load({"kafka_topics": " a, b ,,c"}, {}).kafka_topics == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://shop.example", ("https://shop.example",)),
        (" HTTPS://Shop.Example , http://localhost:3000,", ("https://shop.example", "http://localhost:3000")),
        ("https://shop.example:443,http://shop.example:80", ("https://shop.example", "http://shop.example")),
        ("http://127.0.0.1:8080", ("http://127.0.0.1:8080",)),
        ("http://[0:0::1]:8080", ("http://[::1]:8080",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("https://xn--bcher-kva.example", ("https://xn--bcher-kva.example",)),
    ],
)
def test_origins_are_written_as_browsers_send_them(text: str, origins: tuple[str, ...]) -> None:
    assert settings.load({"cors_origins": text}, {}).cors_origins == origins


@pytest.mark.parametrize(
    "origin",
    [
        "https://*.shop.example",
        "https://shop.example/",
        "https://shop.example/path",
        "https://shop.example?a=b",
        "https://shop.example#a",
        "https://me:pw@shop.example",
        "shop.example",
        "//shop.example",
        "https://",
        "https://:80",
        "https://shop.example:",
        "https://shop.example:0",
        "https://shop.example:65536",
        "https://shop.example:http",
        "https://shop .example",
        "https://b\u00fccher.example",
        "http://[::1",
        "http://[::g]",
        "http://[::1]x",
        "https://shop.example\nx",
        "https://shop..example",
        "null",
        ".*",
    ],
)
@pytest.mark.parametrize("before", ["", "https://a.example,"])
def test_what_is_not_an_origin_is_named(origin: str, before: str) -> None:
    with pytest.raises(ConfigurationError, match="CORS_ORIGINS") as caught:
        settings.load({"cors_origins": before + origin}, {})
    assert f"{origin!r} is not an origin" in str(caught.value)


def test_all_origins_stand_alone() -> None:
    with pytest.raises(ConfigurationError, match="the only value"):
        settings.load({"cors_origins": "https://a.example,*"}, {})
