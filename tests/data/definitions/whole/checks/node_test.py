def test_root_is_private(host):
    assert host.file("/root").mode == 0o700
