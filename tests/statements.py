"""SQL of several tests."""

MANY_MESSAGES = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at, payload)'
    " SELECT gen_random_uuid(), 't', 0, n, now(), now() - n / 100 * interval '1 s',"
    " jsonb_build_object('n', n, 'deep', jsonb_build_object('list', jsonb_build_array(n, 'x')))"
    " FROM generate_series(1, %s) n"
)
END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = %s AND datname = current_database()"
)
# By `World.admin`, which fills the name in: the world's own sessions end, too.
END_ALL_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
