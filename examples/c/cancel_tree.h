/* Cancellation tokens for C. Every function may be called on any thread, also inside callbacks.
 *
 * A `ct_token *` is one handle of a token: each that a function has returned is given to ct_free once, and not used
 * after that. Functions that take a `const ct_token *` borrow it. */

#ifndef CANCEL_TREE_H
#define CANCEL_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ct_token ct_token;
typedef struct ct_registration ct_registration;

/* A token with nothing above it. */
ct_token *ct_new(void);
/* A token below this one: cancelled when this one is. */
ct_token *ct_child(const ct_token *token);
/* Another handle of the same token. */
ct_token *ct_clone(const ct_token *token);
/* Gives a handle back; cancels nothing. NULL is allowed. */
void ct_free(ct_token *token);

/* Cancels the token and all below it. When it returns, who waited is woken and the callbacks have run. `why` is copied,
 * and may be NULL. The first cancel wins. */
void ct_cancel(const ct_token *token, const char *why);
/* One load: for loops. */
bool ct_is_cancelled(const ct_token *token);
/* Writes why the token is cancelled, as far as `size` bytes have room for it and a 0 at its end; "" if it is not
 * cancelled. Returns the length of all of it, as snprintf. `to` may be NULL if `size` is 0. */
size_t ct_cause(const ct_token *token, char *to, size_t size);

/* Blocks until the token is cancelled. */
void ct_wait(const ct_token *token);
/* The same, for so long at most. False: it is not cancelled yet. */
bool ct_wait_ms(const ct_token *token, uint64_t milliseconds);

/* Has `callback(data)` run once when the token is cancelled, on the thread that cancels; at once if it is cancelled
 * already. The callback must not leave by longjmp or an exception. Each registration is given to one of the two
 * functions below. */
ct_registration *ct_on_cancel(const ct_token *token, void (*callback)(void *data), void *data);
/* Takes the callback out; if it is running on another thread, waits for its end. True: it has not run and never
 * will. In any case `data` is the caller's again, unless it is called inside the callback itself. */
bool ct_stop_and_wait(ct_registration *registration);
/* Leaves the callback there: it runs once, at a cancel of the token or of anything above it, also after `ct_free` of the
 * token. `data` must stay until then, or until nobody has the token or anything above it any more. */
void ct_leave(ct_registration *registration);

#ifdef __cplusplus
}
#endif

#endif
