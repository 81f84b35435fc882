NAME = "report.html"


def write(workdir):
    pass


def write_once(workdir):
    pass
