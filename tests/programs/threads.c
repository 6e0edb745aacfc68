/* Eight POSIX threads take turns under a mutex and a condition; each has a thread-local count
 * and an own key value.  Lines as of threads.py.  Arguments: STEPS [DELAY_S].
 * Build: cc -O1 -pthread threads.c -o threads */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 8

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static pthread_key_t key;
static long step, steps;
static useconds_t delay_usec = 25000;
static __thread long own;

static void *work(void *argument)
{
    long mine = (long)(intptr_t)argument;
    pthread_setspecific(key, (void *)(intptr_t)(mine + 100));
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (step < steps && step % THREADS != mine)
            pthread_cond_wait(&turn, &mutex);
        if (step >= steps) {
            pthread_mutex_unlock(&mutex);
            return NULL;
        }
        own++;
        step++;
        printf("step %ld thread %ld own %ld\n", step,
               (long)(intptr_t)pthread_getspecific(key) - 100, own);
        fflush(stdout);
        usleep(delay_usec);
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&mutex);
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    if (argc < 2)
        return 2;
    steps = atol(argv[1]);
    if (argc > 2)
        delay_usec = (useconds_t)(atof(argv[2]) * 1e6);
    pthread_key_create(&key, NULL);
    for (long n = 0; n < THREADS; n++)
        pthread_create(&threads[n], NULL, work, (void *)(intptr_t)n);
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    printf("done %ld\n", steps);
    return 0;
}
