/* What a program in C does with tokens: a server with two requests, of which one is closed by its client. */

#include "cancel_tree.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not assert: it has to hold with NDEBUG as well. */
#define CHECK(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #what);   \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

struct connection {
    int closed;
};

static void close_connection(void *data) {
    struct connection *connection = data;
    connection->closed += 1;
}

/* Takes a handle of its own, and gives it back. */
static void *wait_for_the_end(void *token) {
    ct_wait(token);
    CHECK(ct_is_cancelled(token));
    ct_free(token);
    return NULL;
}

/* Asks now and then, as long computations do. */
static void *compute(void *token) {
    unsigned long rounds = 0;
    while (!ct_wait_ms(token, 1))
        rounds += 1;
    ct_free(token);
    return NULL;
}

int main(void) {
    ct_token *server = ct_new();
    ct_token *request = ct_child(server);
    ct_token *other = ct_child(server);
    CHECK(!ct_is_cancelled(request));
    CHECK(ct_cause(request, NULL, 0) == 0);
    CHECK(!ct_wait_ms(request, 1));

    /* Threads, each with a handle: one waits, one asks. */
    pthread_t waiter, worker;
    CHECK(pthread_create(&waiter, NULL, wait_for_the_end, ct_clone(request)) == 0);
    CHECK(pthread_create(&worker, NULL, compute, ct_child(request)) == 0);

    /* Callbacks: one that will run, one that is taken out before, one that is left to run at the end. */
    struct connection closes = {0}, kept = {0}, left = {0};
    ct_registration *closing = ct_on_cancel(request, close_connection, &closes);
    ct_registration *keeping = ct_on_cancel(request, close_connection, &kept);
    ct_leave(ct_on_cancel(other, close_connection, &left));
    CHECK(ct_stop_and_wait(keeping));

    ct_cancel(request, "the client has gone");
    ct_cancel(request, "too late to say why");
    CHECK(pthread_join(waiter, NULL) == 0);
    CHECK(pthread_join(worker, NULL) == 0);
    CHECK(!ct_stop_and_wait(closing));
    CHECK(closes.closed == 1 && kept.closed == 0);

    char why[64];
    CHECK(ct_cause(request, why, sizeof why) == strlen("the client has gone"));
    CHECK(strcmp(why, "the client has gone") == 0);
    CHECK(ct_cause(request, why, 4) == strlen("the client has gone"));
    CHECK(strcmp(why, "the") == 0);

    /* Neither the server nor the other request has noticed. */
    CHECK(!ct_is_cancelled(server) && !ct_is_cancelled(other));
    CHECK(left.closed == 0);
    ct_cancel(server, NULL);
    CHECK(ct_is_cancelled(other) && left.closed == 1);
    ct_wait(other);

    /* Of a cancelled token: at once. */
    CHECK(!ct_stop_and_wait(ct_on_cancel(server, close_connection, &kept)));
    CHECK(kept.closed == 1);

    /* In any order. */
    ct_free(server);
    ct_free(request);
    ct_free(other);
    ct_free(NULL);
    puts("the program in C: all as expected");
    return 0;
}
