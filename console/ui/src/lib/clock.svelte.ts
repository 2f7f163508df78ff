/** The console's time: what it says about "since" is not to depend on this machine's clock. */
class Clock {
  /** Milliseconds since 1970, once a second. */
  now = $state(Date.now());
  #ahead = 0;

  constructor() {
    setInterval(() => (this.now = Date.now() + this.#ahead), 1000);
  }

  /** Take the time that an answer's Date header states; it has no fractions of a second. */
  compare(date: string | null): void {
    const told = date === null ? NaN : Date.parse(date);
    const ahead = told + 500 - Date.now();
    if (Number.isFinite(ahead) && Math.abs(ahead - this.#ahead) > 1500) this.#ahead = ahead;
  }
}

export const clock = new Clock();
