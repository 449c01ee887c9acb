/* main.c - command line -> one call.  The only place that prints errors or decides the exit code. */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static int complain(const struct error *err)
{
    fflush(stdout);
    fprintf(stderr, "qdelta: %s\n", err->text);
    return err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

static int help(int argc, char **argv)
{
    struct error err = { 0 };
    if (argc < 2) {
        print_help(stdout);
        return EXIT_DONE;
    }
    const struct command *c = command_find(argv[1], &err);
    if (!c)
        return complain(&err);
    print_command_help(stdout, c);
    return EXIT_DONE;
}

static int run_command(const struct command *c, int argc, char **argv)
{
    struct error err = { 0 };
    struct settings s;
    int code = EXIT_USAGE;
    if (!options_parse(c, argc, argv, &s, &err)) {
        code = complain(&err);
    } else if (s.help) {
        print_command_help(stdout, c);
        code = EXIT_DONE;
    } else {
        code = c->run(&s, &err);
        if (err.status != STATUS_OK)
            code = complain(&err);
        else if (fflush(stdout) != 0 || ferror(stdout)) {
            fprintf(stderr, "qdelta: cannot write to standard output\n");
            code = EXIT_FAILED;
        }
    }
    settings_free(&s);
    return code;
}

/* Model files are mapped: one that is cut short or whose disk fails while it is read arrives here. */
static void on_bus_error(int number)
{
    static const char text[] = "qdelta: a mapped model file cannot be read any more: it was cut short, or its disk failed\n";
    (void)number;
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(EXIT_FAILED);
}

int main(int argc, char **argv)
{
    signal(SIGBUS, on_bus_error);
    setlocale(LC_ALL, "C");     /* numbers read and print the same everywhere */
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("qdelta %s (%s)\n", qdelta_version, qdelta_commit);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc - 1, argv + 1);
    struct error err = { 0 };
    const struct command *c = command_find(argv[1], &err);
    return c ? run_command(c, argc - 2, argv + 2) : complain(&err);
}
