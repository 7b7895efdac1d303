"""The program ``pulumi-language-python``."""

from toolchain.language_host.server import main

if __name__ == "__main__":
    main()
