// Java: a pool of threads under a lock, with garbage to collect.  Run as a single source file.
// Line: "step N hash HEX worker T own COUNT".  Arguments: STEPS [DELAY_S].
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

public class Workers {
    static final int THREADS = 4;
    static final Object turn = new Object();
    static int step = 0;
    static int hash = 17;

    static void work(int mine, int steps, long delayMs) throws InterruptedException {
        Map<Integer, String> seen = new HashMap<>();
        while (true) {
            synchronized (turn) {
                while (step < steps && step % THREADS != mine) turn.wait();
                if (step >= steps) return;
                step++;
                hash = hash * 31 + step;
                seen.put(step, "step " + step);
                byte[] garbage = new byte[1 << 18];
                garbage[step % garbage.length] = 1;
                System.out.println("step " + step + " hash " + Integer.toHexString(hash)
                    + " worker " + mine + " own " + seen.size());
                System.out.flush();
                Thread.sleep(delayMs);
                turn.notifyAll();
            }
        }
    }

    public static void main(String[] args) throws Exception {
        int steps = Integer.parseInt(args[0]);
        long delayMs = args.length > 1 ? (long) (1000 * Double.parseDouble(args[1])) : 25;
        List<Thread> threads = new ArrayList<>();
        for (int n = 0; n < THREADS; n++) {
            int mine = n;
            threads.add(new Thread(() -> {
                try {
                    work(mine, steps, delayMs);
                } catch (InterruptedException stop) {
                    Thread.currentThread().interrupt();
                }
            }));
        }
        for (Thread thread : threads) thread.start();
        for (Thread thread : threads) thread.join();
        System.out.println("done " + steps);
    }
}
