//! The bodies: the moon, the hull, and two legs on sprung hinges.

use super::terrain::{HEIGHT, POINTS, Terrain, WIDTH};
use std::sync::Once;
use wrapped2d::b2;
use wrapped2d::dynamics::world::callbacks::ContactAccess;
use wrapped2d::user_data::{UserData, UserDataTypes};

/// Units of the reference's drawing in a metre. Sizes below are in those units where it has them so.
pub(super) const SCALE: f64 = 30.0;
/// Steps a second.
pub(super) const FPS: f64 = 50.0;
/// The hull's corners, drawing units from its origin.
pub(super) const HULL: [[f64; 2]; 6] =
    [[-14.0, 17.0], [-17.0, 0.0], [-17.0, -10.0], [17.0, -10.0], [17.0, 0.0], [14.0, 17.0]];
/// Half the extents of a leg, drawing units.
pub(super) const LEG: [f64; 2] = [2.0, 8.0];
/// How far out and down the legs are, drawing units.
pub(super) const LEG_AT: [f64; 2] = [20.0, 18.0];
/// What the spring of a leg exerts at most, N·m.
const SPRING: f32 = 40.0;
/// The speed at which a spring turns its leg outwards, rad/s.
const SPRING_SPEED: f64 = 0.3;
/// Between these angles a leg turns, rad; mirrored for the right one.
const LEG_ANGLES: [f64; 2] = [0.9 - 0.5, 0.9];
/// Box2D's solver iterations a step, for velocities and for positions.
const ITERATIONS: [i32; 2] = [6 * 30, 2 * 30];

/// Hull and legs touch the ground, which has Box2D's first category, and not each other.
const GROUND: u16 = 0x0001;
const HULL_CATEGORY: u16 = 0x0010;
const LEG_CATEGORY: u16 = 0x0020;

/// What a body knows of its contacts.
#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    /// Whether the last thing that happened was that a contact began. A body with two contacts that loses one of them counts
    /// as one without: so it is in the reference.
    now: bool,
    /// Whether one ever began.
    ever: bool,
}

/// What the bodies of our worlds carry.
struct Carried;

impl UserDataTypes for Carried {
    type BodyData = Touch;
    type JointData = ();
    type FixtureData = ();
}

/// Tells bodies of their contacts.
struct Listener;

impl b2::ContactListener<Carried> for Listener {
    fn begin_contact(&mut self, mut contact: ContactAccess<'_, Carried>) {
        for touch in [contact.body_a.user_data_mut(), contact.body_b.user_data_mut()] {
            *touch = Touch { now: true, ever: true };
        }
    }

    fn end_contact(&mut self, mut contact: ContactAccess<'_, Carried>) {
        contact.body_a.user_data_mut().now = false;
        contact.body_b.user_data_mut().now = false;
    }
}

/// Where a body is and how it moves, in m, rad and s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motion {
    pub(super) position: [f64; 2],
    pub(super) velocity: [f64; 2],
    pub(super) angle: f64,
    pub(super) angular_velocity: f64,
}

/// A craft above the moon.
pub(super) struct Craft {
    world: b2::World<Carried>,
    hull: b2::BodyHandle,
    /// Left and right.
    legs: [b2::BodyHandle; 2],
}

// SAFETY: a `b2::World` is not Send because it holds pointers into Box2D and the listener as a `dyn Any`. All that these
// point to belongs to the world alone, nothing of it is tied to a thread, the listener is a unit struct, and no handle or
// borrow of it leaves this file. What Box2D shares between worlds are two lookup tables, which `fill_tables` fills under a
// `Once` before any other world is made and which are only read after, and counters of calls (b2_gjkCalls and the like)
// that threads may count wrong and that nothing reads.
unsafe impl Send for Craft {}

/// Makes Box2D fill its tables: of block sizes, with the first world, and of how shapes collide, with the first contact.
fn fill_tables() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut world = b2::World::<Carried>::new(&b2::Vec2 { x: 0.0, y: 0.0 });
        for _ in 0..2 {
            let def = b2::BodyDef { body_type: b2::BodyType::Dynamic, ..b2::BodyDef::new() };
            let body = world.create_body(&def);
            world.body_mut(body).create_fast_fixture(&b2::PolygonShape::new_box(1.0, 1.0), 1.0);
        }
        world.step((1.0 / FPS) as f32, 1, 1);
    });
}

/// Box2D computes in f32, the reference around it in f64.
fn vec2([x, y]: [f64; 2]) -> b2::Vec2 {
    b2::Vec2 { x: x as f32, y: y as f32 }
}

impl Craft {
    /// At rest in the middle of the world's top.
    pub(super) fn new(terrain: &Terrain, gravity: f64) -> Self {
        fill_tables();
        let mut world = b2::World::new(&vec2([0.0, gravity]));
        world.set_contact_listener(Box::new(Listener));
        add_moon(&mut world, terrain);

        let top = [WIDTH / 2.0, HEIGHT];
        let fixture = b2::FixtureDef {
            density: 5.0,
            friction: 0.1,
            filter: b2::Filter { category_bits: HULL_CATEGORY, mask_bits: GROUND, ..b2::Filter::new() },
            ..b2::FixtureDef::new()
        };
        let corners = HULL.map(|corner| vec2(corner.map(|value| value / SCALE)));
        let hull = add_body(&mut world, top, 0.0, &b2::PolygonShape::new_with(&corners), fixture);
        let legs = [-1.0, 1.0].map(|side| add_leg(&mut world, hull, top, side));
        Self { world, hull, legs }
    }

    /// Pushes at the hull's center of mass, N, until the next step.
    pub(super) fn push(&mut self, force: [f64; 2]) {
        self.world.body_mut(self.hull).apply_force_to_center(&vec2(force), true);
    }

    /// Turns the hull, N·m, until the next step.
    pub(super) fn turn(&mut self, torque: f64) {
        self.world.body_mut(self.hull).apply_torque(torque as f32, true);
    }

    /// Kicks the hull at a point of the world, N·s.
    pub(super) fn kick(&mut self, impulse: [f64; 2], at: [f64; 2]) {
        self.world.body_mut(self.hull).apply_linear_impulse(&vec2(impulse), &vec2(at), true);
    }

    /// Lets a step's time pass.
    pub(super) fn step(&mut self) {
        self.world.step((1.0 / FPS) as f32, ITERATIONS[0], ITERATIONS[1]);
    }

    /// How the hull moves.
    pub(super) fn hull(&self) -> Motion {
        motion(&self.world.body(self.hull))
    }

    /// How the legs move, left and right.
    pub(super) fn legs(&self) -> [Motion; 2] {
        self.legs.map(|leg| motion(&self.world.body(leg)))
    }

    /// Whether the legs touch the ground, left and right.
    pub(super) fn legs_down(&self) -> [bool; 2] {
        self.legs.map(|leg| self.world.body(leg).user_data().now)
    }

    /// Whether the hull ever touched the ground.
    pub(super) fn crashed(&self) -> bool {
        self.world.body(self.hull).user_data().ever
    }

    /// Whether the craft has lain still for half a second, and Box2D has put it to sleep.
    pub(super) fn sleeps(&self) -> bool {
        !self.world.body(self.hull).is_awake()
    }
}

fn motion(body: &b2::MetaBody<Carried>) -> Motion {
    let (position, velocity) = (body.position(), body.linear_velocity());
    Motion {
        position: [position.x, position.y].map(f64::from),
        velocity: [velocity.x, velocity.y].map(f64::from),
        angle: f64::from(body.angle()),
        angular_velocity: f64::from(body.angular_velocity()),
    }
}

/// The surface, and a floor at height 0.
fn add_moon(world: &mut b2::World<Carried>, terrain: &Terrain) {
    let moon = world.create_body(&b2::BodyDef::new());
    let mut moon = world.body_mut(moon);
    let mut add = |from, to, friction| {
        let edge = b2::EdgeShape::new_with(&vec2(from), &vec2(to));
        moon.create_fixture(&edge, &mut b2::FixtureDef { friction, ..b2::FixtureDef::new() });
    };
    add([0.0, 0.0], [WIDTH, 0.0], 0.2);
    for i in 1..POINTS {
        add(terrain.point(i - 1), terrain.point(i), 0.1);
    }
}

fn add_body(
    world: &mut b2::World<Carried>,
    position: [f64; 2],
    angle: f64,
    shape: &b2::PolygonShape,
    mut fixture: b2::FixtureDef,
) -> b2::BodyHandle {
    let def = b2::BodyDef {
        body_type: b2::BodyType::Dynamic,
        position: vec2(position),
        angle: angle as f32,
        ..b2::BodyDef::new()
    };
    let body = world.create_body(&def);
    world.body_mut(body).create_fixture(shape, &mut fixture);
    body
}

/// The left leg (`side` −1) or the right one (1), hinged to the hull's origin.
fn add_leg(
    world: &mut b2::World<Carried>,
    hull: b2::BodyHandle,
    [x, y]: [f64; 2],
    side: f64,
) -> b2::BodyHandle {
    let away = side * LEG_AT[0] / SCALE;
    let fixture = b2::FixtureDef {
        density: 1.0,
        filter: b2::Filter { category_bits: LEG_CATEGORY, mask_bits: GROUND, ..b2::Filter::new() },
        ..b2::FixtureDef::new()
    };
    let [half_width, half_height] = LEG.map(|half| (half / SCALE) as f32);
    let shape = b2::PolygonShape::new_box(half_width, half_height);
    let angle = side * 0.05;
    let leg = add_body(world, [x - away, y], angle, &shape, fixture);
    let [inner, outer] = LEG_ANGLES.map(|angle| angle as f32);
    // Angles count from the hull to the leg, so the left leg's lie between positive limits.
    let (lower_angle, upper_angle) = if side < 0.0 { (inner, outer) } else { (-outer, -inner) };
    world.create_joint(&b2::RevoluteJointDef {
        local_anchor_b: vec2([away, LEG_AT[1] / SCALE]),
        // Gymnasium names none, and pybox2d takes that as the angle at the start.
        reference_angle: angle as f32,
        enable_limit: true,
        lower_angle,
        upper_angle,
        enable_motor: true,
        motor_speed: (SPRING_SPEED * side) as f32,
        max_motor_torque: SPRING,
        ..b2::RevoluteJointDef::new(hull, leg)
    });
    leg
}
