from cxrkeras.cli import main

main()
