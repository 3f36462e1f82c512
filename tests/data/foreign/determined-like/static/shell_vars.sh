export LAUNCHER_HOME=/opt/launcher
