"""What the server acknowledged, and what it must therefore still have."""


class Ledger:
    def __init__(self):
        self.sends = {}          # event id -> (room, number)
        self.device_keys = {}    # (user, device) -> device_keys object
        self.one_time_keys = {}  # (user, device, key id) -> key object
        self.claims = {}         # (user, device, key id) -> times handed out in answers
        self.claims_unknown = 0  # claims whose answer was lost
        self.to_device = set()   # numbers sent with an answer
        self.received = {}       # number -> times received
        self.account_data = {}   # (user, type) -> (acknowledged value, highest value asked for)
        self.delayed = set()     # numbers of scheduled events whose delay id was answered
        self.pushed = set()      # ids of events that mention the user with a pusher
        self.to_ghost = set()    # numbers of to-device messages for the application service's user
        self.problems = []
        self.number = 0

    def next(self):
        self.number += 1
        return self.number

    def problem(self, text):
        self.problems.append(text)
        print(f"LOST: {text}", flush=True)

    def claimed(self, user, device, key_id):
        where = (user, device, key_id)
        self.claims[where] = self.claims.get(where, 0) + 1
        if self.claims[where] > 1:
            self.problem(f"one-time key {key_id} of {user} was handed out twice")
