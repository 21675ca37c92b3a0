/// A scenario that can be run, as the list shows it.
public struct ScenarioSummary: Hashable, Codable, Sendable {
    /// The file's name without its ending.
    public var name: String
    public var title: String
    public var description: String
    /// Why it cannot run here ("needs disk faults, which real etcd does not offer"); nil: it can.
    public var obstacle: String?

    public init(name: String, title: String, description: String, obstacle: String? = nil) {
        self.name = name
        self.title = title
        self.description = description
        self.obstacle = obstacle
    }
}

/// How far a running scenario is.
public struct ScenarioProgress: Hashable, Codable, Sendable {
    public enum State: Hashable, Codable, Sendable {
        case running
        case passed
        /// With what was expected and what was found.
        case failed(String)
        case stopped
    }

    public var name: String
    public var title: String
    /// 1 ... `steps`.
    public var step: Int
    public var steps: Int
    /// What the present step shows, a sentence for people.
    public var caption: String
    /// "waits until a leader is elected (2.1 s)", for steps that wait.
    public var waitingFor: String?
    public var state: State

    public init(name: String, title: String, step: Int, steps: Int, caption: String, waitingFor: String? = nil, state: State = .running) {
        self.name = name
        self.title = title
        self.step = step
        self.steps = steps
        self.caption = caption
        self.waitingFor = waitingFor
        self.state = state
    }
}

/// Where a replay of a recorded session stands.
public struct ReplayState: Hashable, Sendable {
    public var start: Moment
    public var end: Moment
    public var position: Moment
    public var isPlaying: Bool
    /// 1: as it happened.
    public var speed: Double
    /// When leaders were elected, in the whole recording as far as it has been read.
    public var elections: [Moment]
    /// How much of the file has been read.
    public var loadedPercent: Int

    public init(start: Moment, end: Moment, position: Moment, isPlaying: Bool, speed: Double, elections: [Moment] = [], loadedPercent: Int = 100) {
        self.elections = elections
        self.loadedPercent = loadedPercent
        self.start = start
        self.end = end
        self.position = position
        self.isPlaying = isPlaying
        self.speed = speed
    }
}
