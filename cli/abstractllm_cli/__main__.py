"""`python -m abstractllm_cli` is the command `abstractllm`."""

from abstractllm_cli.main import main

main()
